// The dialect's words for the host's C++ compiler: every collective asks the simulator.
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long long ulong;

#define device
#define constant const
#define threadgroup
#define thread
#define UNROLL
#define TABLE static const
