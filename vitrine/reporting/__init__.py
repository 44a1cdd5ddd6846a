"""What the analyses yield, kept: the store on disk, the page, the W&B sink."""
