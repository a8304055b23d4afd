"""Reading of files into pixels: tables, PNG, decoding, packed views, the synthetic mark."""
