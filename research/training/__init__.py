"""The training room: it is handed a loss function and a source of batches, and knows no model."""
