-- What wrk sends: the tokens of a file in turn. Arguments: the file, the
-- method, the path, and the body, if there is one.
local requests, last = {}, 0

function init(args)
	local headers, body = {}, args[4]
	if body then
		headers["Content-Type"] = "application/json"
	end
	for token in io.lines(args[1]) do
		headers["Authorization"] = "Bearer " .. token
		requests[#requests + 1] = wrk.format(args[2], args[3], headers, body)
	end
end

function request()
	last = last % #requests + 1
	return requests[last]
end

function done(summary, latency)
	local e = summary.errors
	io.write(string.format("peers requests=%d refused=%d broken=%d p50=%d p99=%d\n", summary.requests, e.status,
		e.connect + e.read + e.write + e.timeout, latency:percentile(50), latency:percentile(99)))
end
