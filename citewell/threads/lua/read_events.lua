-- read_events: KEYS[1] is a stream of what runs said, not a thread.
-- ARGV: run, the entry after which to read. Returns the last entry read and the run's payloads in order.
local found = {ARGV[2]}
local read = redis.call('XREAD', 'STREAMS', key, ARGV[2])
if not read then return found end
for _, entry in ipairs(read[1][2]) do
  found[1] = entry[1]
  if entry[2][2] == ARGV[1] then found[#found + 1] = entry[2][4] end
end
return found
