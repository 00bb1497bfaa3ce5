"""The trained networks that ship with formalgr (digits/, mnist/, MANIFEST.json); training/ holds their recipes."""
