-- lives
-- ARGV: ticket. Returns 1 when it holds the thread or waits for it.
local t = now()
if redis.call('HGET', key, 'f') == ARGV[1] then return tonumber(redis.call('HGET', key, 'e')) > t and 1 or 0 end
local till = string.match(redis.call('HGET', key, 'q') or '', ARGV[1] .. ':(%d+);')
return till and tonumber(till) > t and 1 or 0
