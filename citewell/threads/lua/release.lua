-- ARGV: ticket. The field stays, empty: a late write of this ticket must meet a ticket that is not its own.
if redis.call('HGET', key, 'f') == ARGV[1] then redis.call('HSET', key, 'f', '', 'e', '0') end
local queue = redis.call('HGET', key, 'q')
if queue and queue ~= '' then
  queue = string.gsub(queue, ARGV[1] .. ':%d+;', '')
  redis.call('HSET', key, 'q', queue)
end
if (queue or '') == '' and (redis.call('HGET', key, 'f') or '') == '' then
  if redis.call('HEXISTS', key, 'h') + redis.call('HEXISTS', key, 'o') + redis.call('HEXISTS', key, 't') == 0 then
    redis.call('UNLINK', key) -- the run never saved anything
  end
end
return 1
