// Package mailauth is the plugin that finds out whether mail comes from whom it says: SPF, DKIM, DMARC, ARC
// and the client's name. See README.md.
//
// What a sender can make it do is bounded: signatures, look-ups, time. The methods run beside
// each other and do not share their limits, so that the DNS of one domain cannot keep the
// policy of another from being found. It keeps nothing between messages but the data
// for aggregate reports, which are in files below the gateway's data directory.
package mailauth
