-- stop
-- ARGV: ticket (empty: whichever holds the thread). Returns the ticket of the run that was asked to stop, or nothing.
local holder = redis.call('HGET', key, 'f') or ''
if holder == '' or tonumber(redis.call('HGET', key, 'e')) <= now() then return '' end
if ARGV[1] ~= '' and ARGV[1] ~= holder then return '' end
redis.call('HSET', key, 's', holder)
return holder
