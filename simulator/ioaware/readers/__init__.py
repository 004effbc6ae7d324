"""Readers of recorded programs: what each makes of one loop nest is in its own file."""
