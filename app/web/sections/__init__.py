"""Parts of the report page: each turns its part of a report into texts, tables and charts."""
