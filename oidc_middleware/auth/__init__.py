"""Who is it? The known token from memory, the new one by its signature."""
