-- KEYS: what is noted of the disk. ARGV: `since` as it was read, the server's time then in ms, its run id ('': it does not
-- say how it is), 1 where its last rewrite of the append-only file went well. Answers 'ask' where it is to be written anew
-- now, 'wait' where another process was first, or 'clean' where the last rewrite began when nothing was left that had been
-- queued. `asked`, the run that took the last asking, is noted by whoever asks.
local noted = redis.call('HMGET', KEYS[1], 'until', 'since', 'asked')
if noted[2] ~= ARGV[1] then
    return 'wait'
end
if ARGV[3] ~= '' and noted[3] == ARGV[3] and ARGV[4] == '1' and tonumber(noted[2]) >= tonumber(noted[1] or 0) then
    redis.call('DEL', KEYS[1])
    return 'clean'
end
redis.call('HSET', KEYS[1], 'since', ARGV[2])
redis.call('HDEL', KEYS[1], 'asked')
return 'ask'
