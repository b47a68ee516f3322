"""Rehearses migrations: the real runner applies the pending ones to a copy of the database, and tells what they do."""

from __future__ import annotations

from dao.migrate.rehearsal.findings import Failure, Gone, Rehearsal, Rehearsed, RoundTrip, RowChange
from dao.migrate.rehearsal.rehearser import rehearse
from dao.migrate.verification.round_trip import TripFailure

__all__ = [
    "Failure",
    "Gone",
    "Rehearsal",
    "Rehearsed",
    "RoundTrip",
    "RowChange",
    "TripFailure",
    "rehearse",
]
