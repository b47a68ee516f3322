"""A folder of scripts as an ordered list of migrations. Nothing here knows a database."""
