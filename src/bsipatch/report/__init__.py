"""What a person looks at: tables for the terminal, pages for the browser."""
