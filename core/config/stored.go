package config

import "slices"

// WithDomains returns c with further domains, which are not from the file, checked together
// with those that are. c is not changed. The error is a [Problems].
func (c *Config) WithDomains(stored []Domain) (*Config, error) {
	if len(stored) == 0 {
		return c, nil
	}
	all := *c
	all.Domains = slices.Clone(c.Domains)
	for _, d := range stored {
		d.Stored = true
		if d.Recipients == "" {
			d.Recipients = "directory"
		}
		all.completePlanner(&d)
		all.Domains = append(all.Domains, d)
	}
	if err := all.problems().sorted(); err != nil {
		return nil, err
	}
	return &all, nil
}
