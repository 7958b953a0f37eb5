-- ARGV: ttl, id (empty: the newest), ns, generation and count of the messages the client has, channel...
-- Returns {generation, ancestors, messages}: the ancestors of the checkpoint, nearest first, back to the one where
-- the last of the channels has a value.
local ttl, id, ns = unpack(ARGV, 1, 3)
local from, needed, found, open, left = known(ARGV[4], ARGV[5], ARGV[6]), {}, {}, {}, 0
for i = 7, #ARGV do
  open[ARGV[i]] = true
  left = left + 1
end
if id == '' then id = redis.call('HGET', key, 'l' .. ns) end
local function parent(record)
  local _, at = part(record, 1)
  return (part(record, at))
end
local record = id and redis.call('HGET', key, 'c' .. id .. '\0' .. ns)
if not record then return false end
id = parent(record)
while id ~= '' and left > 0 do
  local one = checkpoint(id .. '\0' .. ns, from, needed)
  if not one then break end
  found[#found + 1] = one
  for i, ref in ipairs(one[4]) do
    local channel = string.match(ref, '^(%Z*)')
    if open[channel] and one[5][i] and string.sub(one[5][i], 1, 1) ~= 'e' then
      open[channel] = nil
      left = left - 1
    end
  end
  id = parent(one[3])
end
keep(ttl)
return {redis.call('HGET', key, 'g'), found, messages(needed)}
