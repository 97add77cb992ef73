"""One run over the nights of a dump: decode, settle duplicates, enrich, night modules, commit."""
