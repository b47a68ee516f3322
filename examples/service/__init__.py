"""A service that summarises texts: an example of an application with a table of its own beside those of `dao`.

`app` has the routes, `worker` does the work, `summaries` is the service's own table, with its migrations in `sql/`, and
`glue` is all that ties FastAPI to `dao`. `docs/how-to/build-a-service.md` shows how it is run.
"""
