package redis

// script takes one request from each of KEYS, or from none: policy.Limiter's
// arithmetic, to the fraction of a nanosecond, by Redis' own clock, so that those
// of the gateways do not count. ARGV has three numbers for each key: a count of
// requests, their period in seconds, and the burst. It gives whether they were
// taken and, where not, how long until they could be, in seconds and nanoseconds,
// rounded up, and which of KEYS that is the wait of: the first of those with the
// longest.
//
// A state is the time at which the budget is whole again: seconds since 1970,
// nanoseconds, and parts of a nanosecond, of which there are as many as the
// count. Lua's numbers are exact up to 2^53, about 9e15. The greatest here is a
// remainder below the count (1e6) in nanoseconds, 1e15; seconds stay below 1e12
// (a million requests at one a day are 8.64e10).
//
// What is no state (somebody else wrote there) counts as used up just now, as a
// state does that no request can have left. A key expires a second after its
// budget is whole: no request reads a clock later than that, as in a Limiter.
const script = `
local function later(a, b, count)
  local s, ns, part = a[1] + b[1], a[2] + b[2], a[3] + b[3]
  if part >= count then ns, part = ns + 1, part - count end
  if ns >= 1e9 then s, ns = s + 1, ns - 1e9 end
  return {s, ns, part}
end
local function after(a, b)
  if a[1] ~= b[1] then return a[1] > b[1] end
  if a[2] ~= b[2] then return a[2] > b[2] end
  return a[3] > b[3]
end
local function between(from, to)
  local s, ns = to[1] - from[1], to[2] - from[2]
  if to[3] > from[3] then ns = ns + 1 end
  if ns < 0 then s, ns = s - 1, ns + 1e9 end
  if ns >= 1e9 then s, ns = s + 1, ns - 1e9 end
  return {s, ns, 0}
end
local function of(n, period, count)
  local s = math.floor(n * period / count)
  local rest = (n * period - s * count) * 1e9
  local ns = math.floor(rest / count)
  return {s, ns, rest - ns * count}
end
local function state(text, count)
  if type(text) ~= 'string' then return nil end
  local s, ns, part = string.match(text, '^(%d+) (%d+) (%d+)$')
  if not s or #s > 15 or #ns > 9 or #part > 7 then return nil end
  s, ns, part = tonumber(s), tonumber(ns), tonumber(part)
  if part >= count then return nil end
  return {s, ns, part}
end
local function keep(key, at, now)
  local left = between(now, at)
  local ttl = left[1] * 1000 + math.ceil(left[2] / 1e6) + 1000
  redis.call('SET', key, string.format('%.0f %.0f %.0f', at[1], at[2], at[3]), 'PX', string.format('%.0f', ttl))
end

local clock = redis.call('TIME')
local now = {tonumber(clock[1]), tonumber(clock[2]) * 1000, 0}
local taken, wait, longest, repaired = {}, {0, 0, 0}, 0, {}
local refused = false
for i, key in ipairs(KEYS) do
  local count, period, burst = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
  local cost, full = of(1, period, count), of(burst, period, count)
  local spent = later(now, full, count)
  local at, good = now, true
  local held = redis.pcall('GET', key)
  if type(held) == 'table' and held.err and string.sub(held.err, 1, 9) ~= 'WRONGTYPE' then return held end
  if held then
    at = state(held, count)
    good = at ~= nil and not (after(at, later(spent, {1, 0, 0}, count)) and after(at, later(spent, full, count)))
  end
  if not good then
    repaired[#repaired + 1] = {key, spent}
    refused = true
    local due = between({0, 0, 0}, cost)
    if after(due, wait) then wait, longest = due, i end
  else
    if after(now, at) then at = now end
    local whole = later(at, cost, count)
    if after(whole, spent) then
      refused = true
      local due = between(spent, whole)
      if after(due, wait) then wait, longest = due, i end
    else
      taken[#taken + 1] = {key, whole}
    end
  end
end
local kept = taken
if refused then kept = repaired end
for _, one in ipairs(kept) do keep(one[1], one[2], now) end
if refused then return {0, wait[1], wait[2], longest} end
return {1, 0, 0, 0}
`
