"""Pure passes ``Graph -> Graph``, one per file; `compilers.pipeline` puts them in order."""
