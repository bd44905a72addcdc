-- Limits of all gateways, one batch of holds at a time. Nothing else runs meanwhile, so a batch is atomic.
--
-- KEYS[1]  leases: hash, epoch of a gateway -> until when it is alive, in milliseconds
-- KEYS[2]  holds of the epoch that sends: hash, id of a hold -> its slot, or 'd' when it is done
-- others   holds of earlier epochs of the sender; states of subjects
-- ARGV[1]  MessagePack: {epoch, first, lease_ms, window, settles, admits}
--          settle: {epoch, holds, id, mode, reserved, reserved_cost, tokens, cost, {{state, period, start}}}
--          admit:  {id, tokens, cost, {{state, rpm, tpm, concurrency, budget, period, start, opening}}}
-- returns  MessagePack: {stale, answers to the admits}; an answer is
--          {0, reset_ms, requests, tokens, requests, tokens, ...}   admitted; counts of each subject
--          {1, subject, rule, used, wait_ms, requests, tokens, reset_ms}   refused
--          {2, subject, ...}   asks for opening balances of these subjects
--          {3}   this hold is done already
--
-- A state: c = cells {slot, requests, tokens, ...}, oldest first; h = epoch -> {holds, their cost};
-- p, s, m = budget period, its first instant, money settled in it (absent while not known).
-- Times are those of this server; periods are named by the gateways.

local DAY_MS = 86400000
local CERTAIN, CHARGE = 0, 2

local batch = cmsgpack.unpack(ARGV[1])
local me, first, lease_ms, window = batch[1], batch[2], batch[3], batch[4]
local time = redis.call('TIME')
local now = tonumber(time[1])
local now_ms = now * 1000 + math.floor(tonumber(time[2]) / 1000)

local alive = {}
local function is_alive(epoch)
  if alive[epoch] == nil then
    local till = redis.call('HGET', KEYS[1], epoch)
    alive[epoch] = till ~= false and tonumber(till) >= now_ms
  end
  return alive[epoch]
end

-- An epoch that was thought dead has lost its places: its gateway must take another.
local stale = not first and not is_alive(me)
if not stale then
  alive[me] = true
  redis.call('HSET', KEYS[1], me, string.format('%d', now_ms + lease_ms))
  redis.call('PEXPIRE', KEYS[1], lease_ms * 4)
  redis.call('HSET', KEYS[2], '0', 'd')
  redis.call('PEXPIRE', KEYS[2], DAY_MS)
  if #batch[5] == 0 and #batch[6] == 0 then
    local leases = redis.call('HGETALL', KEYS[1])
    for i = 1, #leases, 2 do
      if tonumber(leases[i + 1]) < now_ms then redis.call('HDEL', KEYS[1], leases[i]) end
    end
  end
end

local function count(state, requests, tokens)
  local c = state.data.c
  local n = #c
  if n > 0 and c[n - 2] == now then
    c[n - 1] = c[n - 1] + requests
    c[n] = c[n] + tokens
  else
    c[n + 1], c[n + 2], c[n + 3] = now, requests, tokens
  end
  state.requests = state.requests + requests
  state.tokens = state.tokens + tokens
end

local states, changed = {}, {}
local function load(key)
  local state = states[key]
  if state then return state end
  local raw = redis.call('GET', KEYS[key])
  local data = raw and cmsgpack.unpack(raw) or {c = {}, h = {}}
  local old = data.c
  data.c = {}
  state = {data = data, requests = 0, tokens = 0, running = 0, reserved = 0}
  local last = 0
  for i = 1, #old, 3 do
    -- When the server's clock was set back, what seems to be still to come counts as of now.
    local slot = math.min(old[i], now)
    if slot > now - window then
      local c = data.c
      if slot == last then
        local n = #c
        c[n - 1], c[n] = c[n - 1] + old[i + 1], c[n] + old[i + 2]
      else
        local n = #c
        c[n + 1], c[n + 2], c[n + 3] = slot, old[i + 1], old[i + 2]
        last = slot
      end
      state.requests = state.requests + old[i + 1]
      state.tokens = state.tokens + old[i + 2]
    end
  end
  for epoch, held in pairs(data.h) do
    if is_alive(epoch) then
      state.running = state.running + held[1]
      state.reserved = state.reserved + held[2]
    else
      data.h[epoch] = nil
    end
  end
  states[key] = state
  return state
end

-- A later period of the same kind begins with nothing spent.
local function turn(data, period, start)
  if data.p == period and start > data.s then
    data.s, data.m = start, 0
  end
  return data.p == period
end

local function settle(op)
  local epoch, holds, id, mode = op[1], KEYS[op[2]], op[3], op[4]
  local reserved, reserved_cost, tokens, cost = op[5], op[6], op[7], op[8]
  local mark = redis.call('HGET', holds, id)
  if mark == 'd' then return end
  if mode ~= CERTAIN then
    redis.call('HSET', holds, id, 'd')
    redis.call('PEXPIRE', holds, DAY_MS)
  elseif mark then
    redis.call('HDEL', holds, id)
  elseif redis.call('EXISTS', holds) == 1 then
    return -- delivered before
  end
  local slot = mark and tonumber(mark)
  for _, part in ipairs(op[9]) do
    local state = load(part[1])
    local data = state.data
    changed[part[1]] = true
    if slot then
      local held = data.h[epoch]
      if held then
        held[1], held[2] = held[1] - 1, held[2] - reserved_cost
        state.running = state.running - 1
        state.reserved = state.reserved - reserved_cost
        if held[1] <= 0 then data.h[epoch] = nil end
      end
      if tokens > reserved then
        count(state, 0, tokens - reserved)
      elseif tokens < reserved then
        local c = data.c
        for i = 1, #c, 3 do
          if c[i] == slot then
            c[i + 2] = c[i + 2] - (reserved - tokens)
            state.tokens = state.tokens - (reserved - tokens)
          end
        end
      end
    elseif mode == CHARGE then
      count(state, 1, tokens)
    end
    if cost > 0 and data.p then
      if part[2] then turn(data, part[2], part[3]) end
      data.m = data.m + cost
    end
  end
end

local function when(c, column, excess)
  for i = 1, #c, 3 do
    excess = excess - c[i + column]
    if excess <= 0 then return (c[i] + window) * 1000 - now_ms end
  end
  return 0
end

local function refused(n, rule, used, wait_ms, state)
  local c = state.data.c
  local reset = #c > 0 and (c[#c - 2] + window) * 1000 - now_ms or 0
  return {1, n - 1, rule, used, wait_ms, state.requests, state.tokens, reset}
end

local function admit(op)
  local id, tokens, cost, wanted = op[1], op[2], op[3], op[4]
  local unknown = {2}
  for n, want in ipairs(wanted) do
    if want[5] then
      local data = load(want[1]).data
      if not turn(data, want[6], want[7]) then
        if want[8] then
          data.p, data.s, data.m = want[6], want[7], want[8]
          changed[want[1]] = true
        else
          unknown[#unknown + 1] = n - 1
        end
      end
    end
  end
  if #unknown > 1 then return unknown end
  for n, want in ipairs(wanted) do
    local state = load(want[1])
    local c = state.data.c
    if want[2] and state.requests >= want[2] then
      return refused(n, 'rpm', state.requests, when(c, 1, state.requests + 1 - want[2]), state)
    elseif want[3] and state.tokens + tokens > want[3] then
      return refused(n, 'tpm', state.tokens, when(c, 2, state.tokens + tokens - want[3]), state)
    elseif want[4] and state.running >= want[4] then
      return refused(n, 'concurrency', state.running, 0, state)
    elseif want[5] and state.data.m + state.reserved + cost > want[5] then
      return refused(n, 'budget', state.data.m + state.reserved, 0, state)
    end
  end
  if redis.call('HSETNX', KEYS[2], id, string.format('%d', now)) == 0 then return {3} end
  local answer = {0, (now + window) * 1000 - now_ms}
  for _, want in ipairs(wanted) do
    local state = load(want[1])
    local held = state.data.h[me] or {0, 0}
    held[1], held[2] = held[1] + 1, held[2] + cost
    state.data.h[me] = held
    state.running = state.running + 1
    state.reserved = state.reserved + cost
    count(state, 1, tokens)
    changed[want[1]] = true
    answer[#answer + 1] = state.requests
    answer[#answer + 1] = state.tokens
  end
  return answer
end

for _, op in ipairs(batch[5]) do settle(op) end
local answers = {}
if not stale then
  for i, op in ipairs(batch[6]) do answers[i] = admit(op) end
end

for key in pairs(changed) do
  local data = states[key].data
  local ttl_ms = (window + 1) * 1000
  if data.p then
    ttl_ms = 40 * DAY_MS
  elseif next(data.h) then
    ttl_ms = DAY_MS
  end
  redis.call('SET', KEYS[key], cmsgpack.pack(data), 'PX', string.format('%d', ttl_ms))
end
return cmsgpack.pack({stale, answers})
