-- keep_event: KEYS[1] is a stream of what runs said, not a thread.
-- ARGV: time to live in ms, the run's first entry (empty: this is it), run, payload, most entries. Returns the entry's
-- id; nothing when the run's first entry is gone, because the conversation was deleted.
if ARGV[2] ~= '' and #redis.call('XRANGE', key, ARGV[2], ARGV[2]) == 0 then return false end
local id = redis.call('XADD', key, 'MAXLEN', '~', ARGV[5], '*', 'r', ARGV[3], 'p', ARGV[4])
redis.call('PEXPIRE', key, ARGV[1])
return id
