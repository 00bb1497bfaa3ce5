"""The trained networks that ship with formalgr (digits/, mnist/, MANIFEST.json) and the recipes that made them (training/)."""
