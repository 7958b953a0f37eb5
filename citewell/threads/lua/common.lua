-- Prepended to every script. KEYS[1] is the thread: one hash, so it lives, expires and moves as a whole.
--
--   g            generation: a random name given when the hash is made; positions of messages are valid within it
--   n            messages stored so far
--   m<position>  a message: <serializer's type> NUL <payload>           d<digest>  its position
--   b<ns> NUL <channel> NUL <version>   a channel's value                w<id> NUL <ns>  writes on a checkpoint
--   c<id> NUL <ns>  a checkpoint: parts "previous", parent, run, delta channels, values, rest (see codec.py)
--   l<ns>        id of the newest checkpoint of a namespace              h  newest checkpoint: <id> NUL <ns>
--   t            its own time to live, ms                                o i a u  owner, title, created, updated (ms)
--   f e q        ticket of the run that holds the thread, until when (ms), tickets that wait
--   s            ticket of the run that was asked to stop
--
-- A value starts with a letter: v <type> NUL <payload> | r <runs> list of messages | s <runs> one message | e nothing.
-- Runs are "position+count,position+count".
local key = KEYS[1]

local function keep(ttl) -- empty: whoever reads does not count as use
  if ttl == '' then return end
  ttl = tonumber(redis.call('HGET', key, 't') or ttl)
  if ttl > 0 then
    redis.call('PEXPIRE', key, ttl)
  elseif redis.call('HEXISTS', key, 'h') == 1 then
    redis.call('PERSIST', key)
  else
    redis.call('PEXPIRE', key, 3600000) -- nothing but a lease yet: do not keep it for good
  end
end

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function generation(fresh)
  local g = redis.call('HGET', key, 'g')
  if not g then
    g = fresh
    redis.call('HSET', key, 'g', g)
  end
  return g
end

local function part(s, at) -- a part is its length in four bytes, then its bytes
  local n = struct.unpack('>I4', s, at)
  return string.sub(s, at + 4, at + 3 + n), at + 4 + n
end

local function less(a, b) -- by bytes; Lua's own "<" follows the server's locale
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

local function previous(node)
  local record = redis.call('HGET', key, 'c' .. node)
  if not record then return nil end
  return (part(record, 1))
end

local function note(value, from, needed) -- remember the messages a value refers to
  local kind = string.sub(value, 1, 1)
  if kind ~= 'r' and kind ~= 's' then return end
  for first, count in string.gmatch(value, '(%d+)%+(%d+)') do
    first, count = tonumber(first), tonumber(count)
    for position = math.max(first, from), first + count - 1 do
      needed[position] = true
    end
  end
end

local function note_writes(log, from, needed)
  local at = 1
  while at <= #log do
    local head, value
    head, at = part(log, at)
    value, at = part(log, at)
    note(value, from, needed)
  end
end

local function fetch(fields) -- HMGET in pieces: Lua cannot unpack an unlimited number of arguments
  local found = {}
  for at = 1, #fields, 1000 do
    local some = redis.call('HMGET', key, unpack(fields, at, math.min(at + 999, #fields)))
    for i = 1, #some do found[#found + 1] = some[i] end
  end
  return found
end

local function messages(needed)
  local positions, fields = {}, {}
  for position in pairs(needed) do positions[#positions + 1] = position end
  table.sort(positions)
  for i, position in ipairs(positions) do fields[i] = 'm' .. position end
  return {positions, fetch(fields)}
end

-- A checkpoint for the reply: {id, ns, record, {channel NUL version, ...}, {value, ...}, writes}
local function checkpoint(node, from, needed)
  local record = redis.call('HGET', key, 'c' .. node)
  if not record then return nil end
  local id, ns = string.match(node, '^(%Z*)%z(.*)$')
  local _, at, names
  for _ = 1, 4 do _, at = part(record, at or 1) end
  names = part(record, at)
  local refs, fields = {}, {}
  for channel, version in string.gmatch(names, '(%Z*)%z(%Z*)%z') do
    refs[#refs + 1] = channel .. '\0' .. version
    fields[#fields + 1] = 'b' .. ns .. '\0' .. channel .. '\0' .. version
  end
  local values = fetch(fields)
  for _, value in ipairs(values) do
    if value then note(value, from, needed) end
  end
  local log = redis.call('HGET', key, 'w' .. node) or ''
  note_writes(log, from, needed)
  return {id, ns, record, refs, values, log}
end

-- The client's messages [0, count) are of this generation and the last is still in its place, or none of them is any
-- good: after a failover or a restart the thread may be without what was written last, or hold something else there.
local function known(gen, count, last)
  if redis.call('HGET', key, 'g') ~= gen then return 0 end
  if count ~= '0' and redis.call('HGET', key, 'd' .. last) ~= string.format('%d', tonumber(count) - 1) then return 0 end
  return tonumber(count)
end
