package proto

// Version is the newest version of the contract that this code speaks.
const Version = 1

// The cookie tells a plugin that the gateway started it. It is no secret.
const (
	CookieKey   = "POSTERN_PLUGIN"
	CookieValue = "c4c6ff3a-mail-gateway-plugin"
)

// Names in the environment of a plugin. Besides them there are the cookie, PATH, LANG,
// TZ, and what go-plugin defines: PLUGIN_PROTOCOL_VERSIONS (the versions of the contract
// that the host speaks, with commas) and PLUGIN_UNIX_SOCKET_DIR. Nothing else is inherited.
const (
	// EnvParentFD is the number of a file descriptor, the read end of a pipe. When reading
	// it ends, the gateway is dead and the plugin must end itself and its children.
	EnvParentFD = "POSTERN_PARENT_FD"
	// EnvParentPID is the process that started the plugin.
	EnvParentPID = "POSTERN_PARENT_PID"
	// EnvName is the plugin's name in the configuration.
	EnvName = "POSTERN_PLUGIN_NAME"
	// EnvRun is the same for all plugins of one run of the gateway and for nothing else.
	EnvRun = "POSTERN_RUN"
	// EnvHostAddress is the path of the socket of the gateway's services (host.proto), and
	// EnvHostToken the token that every call there carries as metadata HostTokenKey.
	EnvHostAddress = "POSTERN_HOST_ADDRESS"
	EnvHostToken   = "POSTERN_HOST_TOKEN"
	HostTokenKey   = "postern-token"
	// EnvListeners has the listeners that are handed over to a service: "FD=ADDRESS", with
	// commas.
	EnvListeners = "POSTERN_LISTENERS"
)

// Sizes, in bytes.
const (
	MaxHeader  = 1 << 20  // a message's header block
	MaxInline  = 64 << 10 // a body that travels by value
	MaxMessage = MaxHeader + MaxInline + 64<<10
	// MaxBatch is for what travels on Plugin.Stream: a call or an answer of MaxMessage, with
	// what stands around it.
	MaxBatch = MaxMessage + 1<<10
)

// MaxCalls is how many calls of Filter and Gate are in a plugin at a time; others wait in the
// host, within their deadlines.
const MaxCalls = 256

// The names of the services in Manifest.interfaces.
const (
	InterfaceFilter    = "filter"
	InterfaceGate      = "gate"
	InterfaceMailbox   = "mailbox"
	InterfacePlanner   = "planner"
	InterfaceObserver  = "observer"
	InterfaceDirectory = "directory"
	InterfaceService   = "service"
)
