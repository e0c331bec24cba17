// Package sieve is the plugin that runs the Sieve scripts of recipients and of the admin. See
// README.md. The language is package engine.
//
// As a planner it says what becomes of a message at a local recipient, without side effects:
// what it wants remembered and sent is part of the plan. It keeps compiled scripts in memory,
// bounded; scripts themselves are data of the gateway about its accounts ([Store]). It is
// safe for concurrent use.
package sieve
