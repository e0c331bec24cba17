package mail

// ReinjectField is the header field with the token by which a message that an outside
// content filter brings back is known. Intake removes it, as all our own fields, from mail
// that comes in elsewhere.
const ReinjectField = "X-Postern-Reinject"
