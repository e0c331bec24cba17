// Package dmarcreport keeps what DMARC found and makes aggregate reports of it (RFC 9990).
//
// A [Journal] has a file for each day (UTC) in a folder: an observation is a line, written
// before Add returns and synced within seconds, so that a crash of the process loses none and
// a power cut a few. Several processes may write to one folder; a damaged line
// is left out. Files are bounded in size and in age.
//
// Of the observations of a day [Journal.Reports] makes one report for each policy domain, and
// [Report] encodes itself as the XML file and the message of RFC 9990. Who gets it is found
// out by [Destinations], which asks those elsewhere whether they want it (RFC 9990, Verifying External Destinations). Sending
// is the caller's.
package dmarcreport
