"""The `tasks` job: does what is lost in the distributions matter for answers?"""
