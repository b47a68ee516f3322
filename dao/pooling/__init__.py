"""What both public pools are made of: the lender, the writer, the event loop."""
