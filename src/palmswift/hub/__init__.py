"""Models: made on the spot, found in a folder, or fetched by ms-swift from a hub."""
