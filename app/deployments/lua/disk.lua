-- KEYS: what is noted of the disk. ARGV: least time between two rewrites of the append-only file in ms, the server's run
-- id, 1 where its last rewrite went well. Answers 'ask' where it is to be written anew now, else 'wait', or 'clean' where
-- the last rewrite began when nothing was left that had been queued. `asked`, the run that took the last asking, is noted by
-- whoever asks.
local noted = redis.call('HMGET', KEYS[1], 'until', 'since', 'asked')
if not noted[1] then
    return 'clean'
end
local at, since = milliseconds(), tonumber(noted[2])
if at - since < tonumber(ARGV[1]) then
    return 'wait'
end
if noted[3] == ARGV[2] and ARGV[3] == '1' and since >= tonumber(noted[1]) then
    redis.call('DEL', KEYS[1])
    return 'clean'
end
redis.call('HSET', KEYS[1], 'since', string.format('%.0f', at))
redis.call('HDEL', KEYS[1], 'asked')
return 'ask'
