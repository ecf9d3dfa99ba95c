-- KEYS: what is noted of the disk. ARGV: expiry of samples in ms.
note_disk(ARGV[1])
return 1
