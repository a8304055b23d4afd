"""From files to pixels: tables, PNG, decoding, the packed views, the mark of synthetic images."""
