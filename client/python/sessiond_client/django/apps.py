"""The app that `INSTALLED_APPS` may name, for its checks. It has no models, and no table."""

from django.apps import AppConfig
from django.core import checks

from .checks import check_settings


class SessiondConfig(AppConfig):
    """`sessiond_client.django` in `INSTALLED_APPS`."""

    name = "sessiond_client.django"
    label = "sessiond"

    def ready(self) -> None:
        checks.register(check_settings, checks.Tags.security)
