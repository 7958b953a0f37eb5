-- ARGV: samples for MEMORY USAGE (0: all). Returns {owner, title, created, updated, bytes}; nothing without a thread.
if redis.call('HEXISTS', key, 'h') + redis.call('HEXISTS', key, 'o') == 0 then return false end
local size = redis.pcall('MEMORY', 'USAGE', key, 'SAMPLES', ARGV[1])
local row = redis.call('HMGET', key, 'o', 'i', 'a', 'u')
row[5] = type(size) == 'number' and size or 0
return row
