"""The parts of both public pools: the lender, the writer, and where threads and tasks wait."""
