"""What a worker runs: every kind of job, in a room with engines."""

from __future__ import annotations

from app.kinds.registry import KINDS
from workers.process.handler import Handlers

HANDLERS = Handlers(kinds=KINDS, room="workers.engine.room:EngineRoom", preload=("workers.diagnosis.compare.job",))
