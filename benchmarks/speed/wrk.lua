-- One request after the other with the next of the cookies in a file, one a line; then prints what wrk measured as JSON.
--
--   wrk -t1 -c CONNECTIONS -d 1s -s wrk.lua URL -- [FILE]
--
-- wrk does not tell a script which of its connections asks. So there are several times as many cookies as connections:
-- when a cookie's turn comes again, its last request has long been answered. Times are in µs.

local requests, at = {}, 0

function init(args)
  if args[1] then
    for cookie in io.lines(args[1]) do
      requests[#requests + 1] = wrk.format(nil, nil, { Cookie = cookie })
    end
  else
    requests[1] = wrk.format()
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"calls": %d, "rate": %f, "p50": %f, "p99": %f, "errors": %d}\n',
    summary.requests, summary.requests / summary.duration * 1e6, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout
  ))
end
