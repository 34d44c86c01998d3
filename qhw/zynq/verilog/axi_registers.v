// The registers of an accelerator, as an AXI4-Lite slave (ARM IHI 0022) of 32-bit words:
//   00, 04  the design's identity: "qhw" and 5 bytes of a SHA-256
//   08      the version of this list: 1
//   0C      written with bit 0 set: the network is reset; reads 1 until that is over
//   10      images of a packet: TLAST ends each packet of the outputs
//   14      bit 0: an image is inside; bit 1: TLAST of an input came within an image
//   18      images that have left
//   1C, 20  clock cycles in which an image was inside; reading the lower word keeps the upper one for the next read
// What is counted begins anew with a reset of the network.
module axi_registers #(
    parameter [63:0] IDENTITY = 0
) (
    input  aclk, aresetn,
    input  [7:0] s_axi_awaddr, s_axi_araddr,
    input  s_axi_awvalid, s_axi_wvalid, s_axi_bready, s_axi_arvalid, s_axi_rready,
    input  [31:0] s_axi_wdata,
    input  [3:0] s_axi_wstrb,
    output s_axi_awready, s_axi_wready, s_axi_arready,
    output reg s_axi_bvalid, s_axi_rvalid,
    output [1:0] s_axi_bresp, s_axi_rresp,
    output reg [31:0] s_axi_rdata,
    input  begun, delivered, misaligned,
    output reg network_resetn,
    output reg [31:0] packet
);
    localparam [4:0] RESET_CYCLES = 16;
    reg  [4:0] left;            // cycles of the network's reset that are still to come
    reg  [31:0] entered, images, upper;
    reg  [63:0] cycles;
    reg  wrong;
    wire busy = entered != images;
    wire write = s_axi_awvalid & s_axi_wvalid & ~s_axi_bvalid;
    wire read = s_axi_arvalid & s_axi_arready;
    wire [5:0] written = s_axi_awaddr[7:2], asked = s_axi_araddr[7:2];
    wire [31:0] given = {
        s_axi_wstrb[3] ? s_axi_wdata[31:24] : packet[31:24], s_axi_wstrb[2] ? s_axi_wdata[23:16] : packet[23:16],
        s_axi_wstrb[1] ? s_axi_wdata[15:8] : packet[15:8], s_axi_wstrb[0] ? s_axi_wdata[7:0] : packet[7:0]
    };
    assign s_axi_awready = write;
    assign s_axi_wready = write;
    assign s_axi_arready = ~s_axi_rvalid;
    assign s_axi_bresp = 2'b00;
    assign s_axi_rresp = 2'b00;
    always @(posedge aclk)
        if (~aresetn) begin
            s_axi_bvalid <= 1'b0;
            s_axi_rvalid <= 1'b0;
            left <= RESET_CYCLES;
            network_resetn <= 1'b0;
            packet <= 32'd1;
        end else begin
            s_axi_bvalid <= write | (s_axi_bvalid & ~s_axi_bready);
            s_axi_rvalid <= read | (s_axi_rvalid & ~s_axi_rready);
            if (write & written == 6'h03 & s_axi_wstrb[0] & s_axi_wdata[0]) left <= RESET_CYCLES;
            else if (left != 0) left <= left - 1'b1;
            network_resetn <= left == 0;
            if (write & written == 6'h04) packet <= given == 0 ? 32'd1 : given;
        end
    always @(posedge aclk)
        if (~network_resetn) begin
            entered <= 0;
            images <= 0;
            cycles <= 0;
            wrong <= 1'b0;
        end else begin
            entered <= entered + begun;
            images <= images + delivered;
            cycles <= cycles + (busy | begun);
            wrong <= wrong | misaligned;
        end
    always @(posedge aclk)
        if (read) begin
            if (asked == 6'h07) upper <= cycles[63:32];
            case (asked)
                6'h00: s_axi_rdata <= IDENTITY[63:32];
                6'h01: s_axi_rdata <= IDENTITY[31:0];
                6'h02: s_axi_rdata <= 32'd1;
                6'h03: s_axi_rdata <= {31'd0, ~network_resetn};
                6'h04: s_axi_rdata <= packet;
                6'h05: s_axi_rdata <= {30'd0, wrong, busy};
                6'h06: s_axi_rdata <= images;
                6'h07: s_axi_rdata <= cycles[31:0];
                6'h08: s_axi_rdata <= upper;
                default: s_axi_rdata <= 32'd0;
            endcase
        end
endmodule
