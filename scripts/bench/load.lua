-- For wrk: sends prepared requests from a file. Arguments: the file, "once" or "each", a seed.
--   once  sends every request one time, in order, and ends the run with the last answer
--   each  sends them in random order until wrk's time has passed
local ffi = require("ffi")
ffi.cdef "int kill(int pid, int signal); int getpid(void);"
local INTERRUPT = 2 -- ends wrk's wait, so that wrk reports at once

local requests, once, sent, answered, verified = {}, false, 0, 0, false

local function count_answer()
  answered = answered + 1
  if answered == #requests then
    wrk.thread:stop()
    ffi.C.kill(ffi.C.getpid(), INTERRUPT)
  end
end

function init(args)
  local file = assert(io.open(args[1], "rb"))
  once = args[2] == "once"
  math.randomseed(tonumber(args[3]))
  local length = file:read("*l")
  while length do
    requests[#requests + 1] = file:read(tonumber(length))
    length = file:read("*l")
  end
  file:close()
  if once then
    response = count_answer -- only here: wrk is slower where it has to show each answer
  end
end

function request()
  if not verified then -- wrk makes one request before the run to look at its form
    verified = true
    return requests[1]
  end
  if not once then
    return requests[math.random(#requests)]
  end
  sent = sent + 1
  return requests[sent] or "" -- nothing is left for this connection
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'figures {"answers": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f, "failed": %d, "refused": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.timeout, errors.status))
end
