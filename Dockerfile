# The daemon alone, in a virtual environment without pip, under a user of its own.
FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv --without-pip /venv
COPY pyproject.toml README.md LICENSE ./
COPY sessiond sessiond
RUN pip --python /venv/bin/python install --no-cache-dir --disable-pip-version-check '.[encryption]'

FROM python:3.13-slim
RUN useradd --system --uid 7377 --no-create-home sessiond && install -d -o sessiond -g sessiond -m 700 /data
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SESSIOND_DATA=/data/sessions.db \
    SESSIOND_LISTEN=0.0.0.0:7377
USER sessiond
EXPOSE 7377
# Python, because the image has no curl.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --start-interval=1s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:7377/readyz', timeout=2)"]
ENTRYPOINT ["sessiond"]
CMD ["serve"]
