-- Takes the summaries back.

DROP TABLE summaries;
