"""How far raters agree, people with people and judges with people, and what follows for what judges count."""
