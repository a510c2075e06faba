"""Built-in trainers and the small pure pieces that they are made of; nothing in ``embstore`` imports these."""
