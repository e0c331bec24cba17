package sdk

// What the round trip test needs: the plugin's half of the conversions.
var (
	DecodeMessage  = decodeMessage
	DecodeDelivery = decodeDelivery
	DecodeConfig   = decodeConfig
	EncodeVerdict  = encodeVerdict
	EncodeManifest = encodeManifest
	EncodeStatus   = encodeStatus
)
