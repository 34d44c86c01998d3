// Puts images that come out together to packets: `last` is TLAST of a packet, of `packet` images.
module image_packets (
    input  clk, resetn, step, image_last,
    input  [31:0] packet,
    output last
);
    reg  [31:0] images;         // of this packet, that are through
    assign last = image_last & images + 1'b1 >= packet;
    always @(posedge clk)
        if (~resetn) images <= 0;
        else if (step & image_last) images <= last ? 32'd0 : images + 1'b1;
endmodule
