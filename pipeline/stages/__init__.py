"""Pure stages from Arrow to Arrow: decode and normalise, cross-match, sky maps, science, filters, assembly."""
