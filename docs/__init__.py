"""The documentation: its pages, what renders parts of them (`render`), and what checks the site (`check_site`)."""
