"""What answers a scrape: the text, who may have it, and on which port."""
