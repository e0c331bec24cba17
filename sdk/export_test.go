package sdk

// What the round trip test needs: the plugin's half of the conversions.
var (
	DecodeMessage  = decodeMessage
	DecodeDelivery = decodeDelivery
	DecodeAttempt  = decodeAttempt
	DecodeConfig   = decodeConfig
	DecodeEvents   = decodeEvents
	EncodeFolders  = encodeFolders
	EncodePlan     = encodePlan
	EncodeVerdict  = encodeVerdict
	EncodeManifest = encodeManifest
	EncodeStatus   = encodeStatus
)
